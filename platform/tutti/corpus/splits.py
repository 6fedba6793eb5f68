"""Train, valid or test: a pure function of a work's own key, whatever else is in the corpus and on whatever machine.

The key is the work's fingerprint, not its id: the same melody in another key or tempo, or from another collection,
falls into the same split, so that a held-out work is not one that was trained on in transposition.
"""

from __future__ import annotations

import hashlib

TRAIN, VALID, TEST = SPLITS = ("train", "valid", "test")


_TOLD = {
    "train": TRAIN, "training": TRAIN,
    "valid": VALID, "validation": VALID, "val": VALID, "dev": VALID,
    "test": TEST, "testing": TEST,
}  # fmt: skip


def told_split(uri: str) -> str | None:
    """The split that the folders of a file's URI tell, the innermost first; None where they tell none.

    Published corpora come divided, and what is measured on another division compares with nothing.
    """
    folders = uri.replace("!", "/").split("/")[:-1]
    return next((_TOLD[name] for folder in reversed(folders) if (name := folder.lower()) in _TOLD), None)


def split_of(key: str, *, valid_share: float, test_share: float) -> str:
    """The split of ``key``.

    Raising a share moves works out of ``train`` only, apart from those between ``test`` and ``valid``.

    Args:
        key: a fingerprint.
        valid_share, test_share: expected parts of all keys, 0 to 1 together.
    """
    digest = hashlib.blake2b(key.encode(), digest_size=8, person=b"tutti.split").digest()
    standing = (int.from_bytes(digest, "big") >> 11) * 2.0**-53
    if standing < test_share:
        return TEST
    return VALID if standing < test_share + valid_share else TRAIN
