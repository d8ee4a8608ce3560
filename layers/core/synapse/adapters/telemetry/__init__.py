"""Adapters of the Telemetry port: EMF for CloudWatch, Prometheus for one machine."""
