"""The parts of the model that Theano computes."""
