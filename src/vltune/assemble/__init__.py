"""From a resolved configuration to objects.  The only room that reads both."""
