"""Click logs: reading, checking, indexing and scheduling them. No Theano here."""
