"""Tables of data sets: image sets, test sets, training sets, classes, downloads."""
