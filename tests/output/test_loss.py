"""The curve of a training loss."""

import pytest
from matplotlib.axes import Axes

from fastdpm.output.figures import write_loss


@pytest.mark.parametrize(
    ("losses", "scale"), [([0.118, 0.116], "linear"), ([1.0, 0.1], "log"), ([1.0, 0.0], "linear")]
)
def test_an_axis_is_logarithmic_only_over_a_wide_range(tmp_path, monkeypatch, losses, scale):
    found = {}
    before = Axes.set

    def note(axes, **values):
        found.update(values)
        return before(axes, **values)

    monkeypatch.setattr(Axes, "set", note)
    write_loss(tmp_path / "loss.png", "loss", [50, 100], losses)
    assert (found["xscale"], found["yscale"]) == ("linear", scale)
    assert (tmp_path / "loss.png").stat().st_size > 1000
