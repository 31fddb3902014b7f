"""The version of the package and of the language, in one place: pyproject.toml and the manifests read it here."""
VERSION = "0.1.0"
