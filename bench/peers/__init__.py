# SPDX-License-Identifier: Apache-2.0
"""What bench/peers_optimizer.py and bench/quality_optimizer.py are made of."""
