"""The end-to-end tests: real registries, images, unpackers and init systems."""
