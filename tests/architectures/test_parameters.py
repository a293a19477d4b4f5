"""Parameters come from the calibration files as they are now, not as they once were read."""

from simlib import paths
from simlib.architectures import parameters

TEXT = "parameters:\n  network: {value: {family: constant, value: %s}, provenance: measured}\n"


def test_a_calibration_that_was_written_again_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CALIBRATION", tmp_path)
    for value in ("0.001", "0.0025"):
        (tmp_path / "system.yaml").write_text(TEXT % value)
        assert parameters.calibrated("rest", None)["network"].value.mean_value == float(value)
    (tmp_path / "system.yaml").unlink()
    assert parameters.calibrated("rest", None) == {}
