from __future__ import annotations

import inspect

import apache_beam as beam
import pytest

from beam_cifar import BeamCifarError, errors, find_error
from beam_cifar.errors import InputError, JobError, PickleError, UsageError
from beam_cifar.pipeline import errors as carried
from beam_cifar.pipeline.errors import CarriedError


def carried_text(error: BaseException) -> str:
    with pytest.raises(CarriedError) as caught, carried.carried():
        raise error
    return str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        InputError("x: row 3: 'quoted' \\ and\nlines — ünï"),
        UsageError("u"),
        JobError("j"),
        PickleError("f", 7, "reason"),
    ],
)
def test_a_known_error_survives_any_wrapping(error: BeamCifarError) -> None:
    text = carried_text(error)
    wrapped = RuntimeError(repr(f"Traceback:\n  {text!r}\n" * 3) + " [while running 'ReadBlocks']")
    found = find_error(wrapped)
    assert type(found) is type(error)
    assert found is not None
    assert (str(found), found.exit_code) == (str(error), error.exit_code)


def test_a_known_error_is_found_in_the_chain_of_causes() -> None:
    with pytest.raises(ValueError, match="outer") as caught:
        try:
            raise InputError("inner")
        except InputError as error:
            raise ValueError("outer") from error
    assert str(find_error(caught.value)) == "inner"


def test_a_failure_of_the_storage_becomes_one_of_the_job() -> None:
    found = find_error(RuntimeError(carried_text(OSError(28, "No space left on device", "part"))))
    assert (type(found), str(found)) == (JobError, "part: No space left on device")


def test_an_unknown_error_stays_unknown() -> None:
    assert find_error(RuntimeError("something else")) is None


def test_the_markers_do_not_stand_in_the_source() -> None:
    source = inspect.getsource(carried)
    assert carried._BEGIN not in source
    assert carried._END not in source


def test_every_error_has_its_documented_exit_code() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BaseException)]
    assert {kind.__name__: kind.exit_code for kind in kinds} == {  # type: ignore[attr-defined]
        "BeamCifarError": 1,
        "JobError": 1,
        "UsageError": 2,
        "InputError": 3,
        "RowError": 3,
        "ConflictError": 3,
        "PickleError": 3,
        "OutputError": 4,
        "DifferencesError": 5,
    }


def _interrupted(_: int) -> None:
    raise KeyboardInterrupt


def test_ctrl_c_within_a_bundle_is_no_error_of_the_pipeline() -> None:
    with pytest.raises(KeyboardInterrupt), carried.explained(), beam.Pipeline("FnApiRunner") as pipeline:
        _ = pipeline | beam.Create([1]) | beam.Map(_interrupted)
