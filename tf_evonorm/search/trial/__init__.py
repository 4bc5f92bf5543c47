"""The trial of one candidate: small networks, the proxy task, the rejection tests, the verdict."""
