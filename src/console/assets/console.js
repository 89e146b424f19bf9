// Keeps pages up to date. Every page is whole without it.
