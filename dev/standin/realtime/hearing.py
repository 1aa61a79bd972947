"""Turns by silence: speech is where audio is loud, and a turn ends when it has been quiet for a while."""

from array import array
from dataclasses import dataclass
from typing import Literal

LOUD = 500  # of 32768, the mean of a block
RATES = {"audio/pcm": 48, "audio/pcmu": 8, "audio/pcma": 8}  # bytes in a millisecond


@dataclass(slots=True)
class Hearing:
    """What was heard so far, in milliseconds."""

    ms: float = 0.0
    quiet: float = 0.0
    began: float | None = None  # when the turn under way began

    def hear(
        self, audio: bytes, kind: str, silence: int
    ) -> Literal["started", "stopped"] | None:
        """Take more audio; whether a turn has begun or ended with it."""
        length = len(audio) / RATES.get(kind, 48)
        self.ms += length
        if loudness(audio, kind) >= LOUD:
            self.quiet = 0.0
            if self.began is None:
                self.began = self.ms - length
                return "started"
            return None
        self.quiet += length
        if self.began is not None and self.quiet >= silence:
            self.began = None
            return "stopped"
        return None


def loudness(audio: bytes, kind: str) -> float:
    """The mean of its samples, without their signs."""
    if kind == "audio/pcm":
        samples = array("h", audio[: len(audio) // 2 * 2])
        return sum(map(abs, samples)) / len(samples) if samples else 0.0
    # Of μ-law and A-law: silence is 0xFF, 0x7F, 0xD5 and 0x55; loud are the low exponents.
    loud = sum(1 for byte in audio if (~byte & 0x70) >= 0x30)
    return 32768.0 * loud / len(audio) if audio else 0.0
