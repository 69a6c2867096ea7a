"""hls4ml: a folder with a model that it accepts and a config that is exact for it."""
