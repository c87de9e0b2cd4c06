"""Theano Ops, one folder an idea: the definition in numpy, the kernels for CPU and GPU."""
