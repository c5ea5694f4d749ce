"""Speed and memory of syncd against its peers, measured on this machine in one run."""
