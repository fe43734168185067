"""Writing files: complete or not at all."""

import pytest

from metaduel.envs.core.files import replacing, write_atomic


def test_a_file_is_written_into_new_folders_and_replaced(tmp_path):
    path = tmp_path / "new" / "folder" / "table.csv"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "film.gif"
    write_atomic(path, b"old")

    def write(half):
        with replacing(path) as temporary:
            assert (temporary.parent, temporary.suffix) == (path.parent, ".gif")
            temporary.write_bytes(half)
            assert path.read_bytes() == b"old"
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write(b"ne")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
