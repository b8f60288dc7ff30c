"""Small pictures inside the page."""

from __future__ import annotations

from base64 import b64encode
from hashlib import blake2b
from io import BytesIO

SIDE = 160  # pixels, at most; smaller ones stay as they are
_KEPT = {"JPEG": "image/jpeg", "PNG": "image/png"}


class Pictures:
    """Each picture once, as a data URI, as long as there is room.  `limit`: bytes that may be used up to now."""

    def __init__(self, limit: int):
        self.limit = limit
        self.used = 0
        self.embedded: list[str] = []
        self._known: dict[bytes, int | None] = {}
        self._without_room: set[bytes] = set()

    @property
    def left_out(self) -> int:
        """Pictures that there was no room for, or that cannot be decoded."""
        return len(self._without_room) + sum(number is None for number in self._known.values())

    def add(self, content: bytes) -> int | None:
        """The picture's place in `embedded`; None where it does not fit now, or cannot be decoded."""
        from vltune.images import UnreadableImageError

        key = blake2b(content, digest_size=16).digest()
        if key in self._known:
            return self._known[key]
        try:
            place = self._place(content) if self.used < self.limit else None
        except UnreadableImageError:
            self._known[key] = None
            return None
        if place is None:
            self._without_room.add(key)
        else:
            self._known[key] = place
            self._without_room.discard(key)
        return place

    def _place(self, content: bytes) -> int | None:
        """None where there is no room.  UnreadableImageError where it cannot be decoded."""
        kind, small = _small(content)
        uri = f"data:{kind};base64,{b64encode(small).decode()}"
        if self.used + len(uri) > self.limit:
            return None
        self.used += len(uri)
        self.embedded.append(uri)
        return len(self.embedded) - 1


def _small(content: bytes) -> tuple[str, bytes]:
    """Media type and bytes of a picture of at most SIDE pixels."""
    from vltune.images import opened

    with opened(content) as image:
        if image.format in _KEPT and max(image.size) <= SIDE:
            image.load()
            return _KEPT[image.format], content
        image.draft("RGB", (2 * SIDE, 2 * SIDE))  # decodes a large JPEG at a fraction of its size
        small = image.convert("RGB")
        small.thumbnail((SIDE, SIDE))
        out = BytesIO()
        small.save(out, "JPEG", quality=80, optimize=True)
        return "image/jpeg", out.getvalue()
