"""Published classifiers, as encoders of U-Nets and as judges of perceptual losses."""
