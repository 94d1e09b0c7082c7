"""Text that people write into a note below what kmnist-search writes; it is kept."""

#: It is in the notes of existing studies, so it does not change.
END = "*kmnist-search writes all above this line. What you write below it stays.*"


def with_kept_text(ours: str, before: str) -> str:
    """Return a note that begins with `ours` and ends with what people wrote into the note as it was before."""
    theirs = before.partition(END)[2] if END in before else f"\n\n{before}" if before.strip() else ""
    return f"{ours.strip()}\n\n---\n{END}{theirs}"
