# Copyright: Renderfarm Cloud contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file lets Ansible find the documentation in ec2_fast_launch.yml; the work is done by the action plugin of the
# same name.
