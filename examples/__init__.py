"""From the public data sets' raw files to the published results."""
