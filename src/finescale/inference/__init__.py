"""A network applied to a picture of any size: tiling, local statistics, self-ensemble, engines, files."""
