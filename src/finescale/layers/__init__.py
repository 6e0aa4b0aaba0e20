"""Building blocks of networks: activations, attention, norms, upsampling, initialisation."""
