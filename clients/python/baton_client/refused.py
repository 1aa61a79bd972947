"""What can go wrong: a refusal, which has a code, and whatever else HTTP answers."""

from datetime import datetime


class Refused(Exception):
    """The request cannot be taken; the text says why and what to do. Nothing was written.

    `code` names the reason (Baton's page on jobs has the table), `field` what of the request it is about,
    `again_at` when to ask again.
    """

    def __init__(
        self,
        code: str,
        sentence: str,
        field: str | None = None,
        again_at: datetime | None = None,
    ) -> None:
        super().__init__(sentence)
        self.code, self.field, self.again_at = code, field, again_at


class Failed(Exception):
    """No refusal of a request: no key that counts, nothing there, an answer that makes no sense.

    `status` is HTTP's; `code` is as the gateway has it.
    """

    def __init__(self, status: int, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.code = status, code


# What the SQLSTATEs of `baton_enqueue` are called; one that is newer is called "refused".
CODES = {
    "BA001": "bad_input",
    "BA002": "prompt_too_long",
    "BA003": "busy",
    "BA004": "key_conflict",
    "BA005": "unknown_project",
    "BA006": "project_unavailable",
    "BA007": "being_deleted",
    "BA008": "too_many_requests",
    "BA009": "bad_workspace",
    "BA010": "bad_template",
    "BA011": "bad_branch",
    "BA012": "bad_version",
    "BA013": "wrong_isolation",
    "BA014": "bad_callback",
    "BA015": "wrong_user",
}
