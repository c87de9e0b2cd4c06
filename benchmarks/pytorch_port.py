"""Training speed of the official PyTorch port, in a folder of yours.

    python -m benchmarks.pytorch_port FOLDER DATA PARAMETERS DEVICE

FOLDER has its ``gru4rec_pytorch.py``. DATA is tab-separated, with numbers as ids; PARAMETERS a file
as the port reads it (`training.port_settings`); DEVICE as PyTorch names it, cuda:0 for example. The
port prints its speed after each epoch; the first one warms up.
"""

from __future__ import annotations

import runpy
import sys

N_EPOCHS = 3


def main() -> None:
    folder, data, parameters, device = sys.argv[1:]
    sys.path.insert(0, folder)
    import pandas as pd
    import torch
    from gru4rec_pytorch import GRU4Rec

    settings = {**runpy.run_path(parameters)["gru4rec_params"], "n_epochs": N_EPOCHS}
    model = GRU4Rec(device=torch.device(device))
    model.set_params(**settings)
    model.fit(pd.read_csv(data, sep="\t"))


if __name__ == "__main__":
    main()
