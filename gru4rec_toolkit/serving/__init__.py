"""Using a trained model: the best items of sessions, one by one or all of a log."""
