"""An interrupt is one line, even while the program is still being imported."""

import os
import signal
import subprocess
import sys
import time

import pytest

import fastdpm.__main__ as entry


def test_an_interrupt_of_an_import_is_one_line(monkeypatch, capsys):
    class Interrupted:
        def find_spec(self, name, path, target=None):
            if name == "fastdpm.cli.app":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "fastdpm.cli.app", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    with pytest.raises(SystemExit) as caught:
        entry.main()
    assert caught.value.code == 130
    assert capsys.readouterr().err == "Error: interrupted\n"


@pytest.mark.parametrize("seconds", [0.2, 0.6])
def test_an_early_interrupt_of_the_program_is_one_line(tmp_path, seconds):
    ready = tmp_path / "ready"
    # The interpreter has started, and imports the program next.
    code = (
        "import runpy, sys, pathlib; import fastdpm; "
        f"pathlib.Path({str(ready)!r}).touch(); "
        "sys.argv = ['fastdpm', 'sample', 'digits', '-n', '5000', '--out', 'x']; "
        "runpy.run_module('fastdpm', run_name='__main__')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    while not ready.exists():
        time.sleep(0.01)
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    if process.returncode == -signal.SIGABRT:
        pytest.skip("the signal came within the import of PyTorch's compiled part, which aborts")
    # Python ends by the signal itself if it came within exec(); a shell shows 130 for both.
    assert process.returncode in (130, -signal.SIGINT)
    assert err.startswith("Error: interrupted")
    assert err.count("\n") == 1
