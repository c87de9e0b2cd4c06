"""Hyperparameter search with Optuna. No Theano here."""
