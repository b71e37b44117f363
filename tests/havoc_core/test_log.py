"""Messages go to the screen and to the file."""

from __future__ import annotations

from havoc_core.log import LOGGER, close_file, to_file


def test_a_file_gets_every_message_until_it_is_closed(tmp_path):
    path = tmp_path / "logs" / "train.log"
    handler = to_file(path)
    LOGGER.info("first π")
    close_file(handler)
    LOGGER.info("after")
    text = path.read_text(encoding="utf-8")
    assert "INFO first π" in text
    assert "after" not in text
    handler = to_file(path)
    LOGGER.warning("second")
    close_file(handler)
    assert path.read_text(encoding="utf-8").count("\n") == 2
