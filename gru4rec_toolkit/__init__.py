"""Package behind the six faces, the files that users run and import by name.

Rooms, and what each may import::

    data/    events from files, ids, sessions, the schedule of mini-batches    -> errors, arguments
    ops/     Theano Ops, each with its definition in numpy and its kernels     -> theano_setup
    model/   losses, optimizers, negatives, training, validation,
             checkpoints, ranking                                    -> ops, data, tracking, ranks
    serving/ the best items of sessions, in batches and one by one; exports    -> model, data
    search/  hyperparameter search with Optuna                                 -> parameters
    tracking/ epochs of a training in tables, curves, TensorBoard, MLflow      -> files, errors
    baselines/  other methods, evaluated as the model is                -> data, parameters

    run_options.py -> tracking/, arguments.py; seeds.py, variants.py: of run.py    -> parameters/
    split.py: the command line of data/splits.py                               -> data, files.py
    ranks.py: the targets' ranks, Recall and MRR                               -> nothing
    significance.py -> tablefile.py, parameters/                                -> data, files.py
    files.py  parameters/  modelfile.py -> container.py            -> errors, processes
    arguments.py -> errors.py, progress.py                                     -> messages
    messages.py  processes.py                                                  -> nothing
    theano_setup.py -> machine.py, theano_patches.py -> compile_directory.py   -> errors
    theano_setup.py -> gpu_probe.py -> machine.py, theano_compat.py            -> errors
    theano_setup.py -> theano_compat.py                                        -> nothing

The faces: ``run.py`` -> ``evaluation.py`` -> ``gru4rec.py`` -> ``custom_opt.py`` -> ``gpu_ops.py``
-> ``ops/``; ``paropt.py`` -> ``search/``. Nothing here imports a face. Importing this package
imports nothing else; ``__version__`` is looked up when somebody asks for it.
"""

TYPE_CHECKING = False  # as of typing, which is not imported
if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name):
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from gru4rec_toolkit import versions

        return versions.toolkit()
