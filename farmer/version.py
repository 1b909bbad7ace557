"""The one place that names the release."""

VERSION = "0.1.0"
