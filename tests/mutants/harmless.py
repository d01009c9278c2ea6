"""Changes that no test can notice, because they change nothing that anybody can see; each with the reason."""

from __future__ import annotations

#: By file: the kind of change, the line, and why it changes nothing.
HARMLESS: dict[str, tuple[tuple[str, str, str], ...]] = {}
