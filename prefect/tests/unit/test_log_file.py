"""The stand-in for the Agent's file of log records: what a flood may lose there."""

from __future__ import annotations

from lab.agent import LogFile


def written(file: LogFile, numbers: range) -> None:
    for number in numbers:
        file.write(str(number))


def test_a_file_that_is_begun_anew_once_between_two_looks_loses_nothing() -> None:
    file = LogFile(most_bytes=100)
    written(file, range(10, 40))
    assert file.read() == [*range(10, 40)]
    written(file, range(40, 70))

    assert file.read() == [*range(40, 70)]
    assert file.lost == 0


def test_a_file_that_is_begun_anew_twice_between_two_looks_loses_what_was_between() -> None:
    file = LogFile(most_bytes=30)
    written(file, range(10, 35))

    # Ten lines of three bytes go into a file.
    assert file.read() == [*range(10, 20), *range(30, 35)]
    assert file.lost == 10
