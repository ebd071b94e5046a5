"""Names of the files of a run's folder that more than one stage knows."""

TEXT = "text"  # folder of the text table
CODEC = "codec.safetensors"  # the finished autoencoder
TRANSFORMER = "start.safetensors"  # weights that the transformer's training begins with
