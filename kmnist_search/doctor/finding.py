"""The result of one check."""

from dataclasses import dataclass
from typing import Literal

#: "ok" works, "absent" is not here and may not be needed, "bad" keeps a search from working well.
State = Literal["ok", "absent", "bad"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found.

    Attributes:
        name: what was checked.
        state: whether it works.
        text: what was found.
        advice: what to do about it; empty if nothing needs to be done.
    """

    name: str
    state: State
    text: str
    advice: str = ""
