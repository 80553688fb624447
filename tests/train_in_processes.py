"""What each process of a run does in tests: ``torchrun tests/train_in_processes.py FILE``, a pickled list of settings.

One start of the processes serves several runs, because starting takes longer than they do.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

from autogaze.training.processes import Processes
from autogaze.training.run_settings import RunSettings
from autogaze.training.trainer import Trainer


def main() -> None:
    runs: list[RunSettings] = pickle.loads(Path(sys.argv[1]).read_bytes())
    processes = Processes(runs[0])
    for settings in runs:
        stage: Any = settings.make_stage(device=processes.device, tell=lambda path, message: None)
        Trainer(settings, processes, stage).run()
    processes.close()


if __name__ == "__main__":
    main()
