"""Tracking of trainings: what is known of each epoch, and where it goes.

`GRU4Rec.fit` calls its ``callbacks`` with an `Epoch` after every epoch. Those here write a table,
draw curves, and feed TensorBoard and MLflow, whose libraries are imported only when asked for.
"""
