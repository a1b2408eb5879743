"""What is sent, and whether a copy is right."""

import hashlib
import os
import random


class Content:
    """A number of files of one size, the same bytes at every run."""

    def __init__(self, size, files=1):
        self.size = size
        self.files = files
        self.names = ["image"] if files == 1 else [f"d{i // 200:03}/f{i:05}" for i in range(files)]

    def write(self, folder):
        """Makes the files, and remembers their sums."""
        source = random.Random(1)
        self.sums = {}
        for name in self.names:
            path = f"{folder}/{name}"
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                left = self.size // self.files
                while left:
                    left -= file.write(source.randbytes(min(left, 1 << 20)))
            self.sums[name] = sha256(path)

    def fault(self, folder):
        """What is wrong with that copy, or None: every file must be there with the right SHA-256."""
        for name, right in self.sums.items():
            try:
                found = sha256(f"{folder}/{name}")
            except OSError as error:
                return f"{name}: {error.strerror}"
            if found != right:
                return f"{name}: not the same as the master's"
        return None


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
