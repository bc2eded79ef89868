"""Running a server and its clients confined: own user, no network, ends with its parent."""
