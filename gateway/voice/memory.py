"""What a session has for its next link: the configuration that was accepted, and the conversation."""

from dataclasses import dataclass, field

from config.log import log as logger
from db.live.voice import Kept
from gateway.voice import shape
from gateway.voice.conversation import RATES, Conversation
from gateway.voice.events import Event, part, said
from gateway.voice.shape import Misshapen


@dataclass(slots=True)
class Memory:
    """Of one session. `config` is the session.update to replay; None: nothing was accepted yet."""

    config: Event | None = None
    talk: Conversation = field(default_factory=Conversation)
    by_hand: bool = False  # the client says when a turn has ended: no turn detection

    def take(self, kept: Kept) -> Misshapen | None:
        """Begin with what was kept; what is wrong with its configuration, which is left out then."""
        self.talk = Conversation.of(kept.items)
        try:
            self._use(shape.stored(kept.data))
        except Misshapen as exc:
            return exc
        return None

    def accept(self, event: Event, session: str) -> bool:
        """The provider has accepted a configuration; whether it can be kept."""
        try:
            self._use(shape.update(event.get("session")))
        except Misshapen as exc:
            logger.warning("voice.not_kept", session=session, param=exc.param, why=exc.code)
            return False
        return True

    def _use(self, config: Event | None) -> None:
        self.config = config
        heard = part(config or {}, "session", "audio", "input")
        self.by_hand = heard.get("turn_detection", ...) is None
        audio = said(part(config or {}, "session", "audio", "output", "format"), "type")
        self.talk.rate = RATES.get(audio, RATES["audio/pcm"])
