"""Restore the two names of configparser that Theano's setup.py uses (see ../backend.py)."""

import configparser

if not hasattr(configparser, "SafeConfigParser"):

    class SafeConfigParser(configparser.ConfigParser):
        """`configparser.ConfigParser` under its old name, with `read_file` under its old name."""

        def readfp(self, fp, filename=None):
            self.read_file(fp, filename)

    configparser.SafeConfigParser = SafeConfigParser
