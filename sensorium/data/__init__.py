"""Sources, foreign formats, mixtures, order, packing, and the data sets we build."""
