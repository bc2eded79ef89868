"""Code that several test modules share: repositories, servers, images, mounts, twins and fakes."""
