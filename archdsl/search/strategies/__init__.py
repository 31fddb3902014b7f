"""The strategies of archdsl, one module for each family. None imports torch or a search library before it is set up."""
