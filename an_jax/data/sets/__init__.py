"""The data sets, as tables: image sets, test sets, training sets, classes, where to get them."""
