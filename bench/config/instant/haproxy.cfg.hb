# A node that answers at once, so that bench/traffic measures the balancer and not the application.
global
    # For the tools, which are there as in any container of this image.
    stats socket /run/haproxy/admin.sock mode 600 level admin

defaults
    mode http
    timeout client 65s

frontend application
    bind *:3000
    # As much as the application says, with the name by which the cluster knows the node.
    http-request return status 200 content-type application/json lf-string '{"hello":"world!","host":"%H","sessionViews":1,"id":"00000000-0000-0000-0000-000000000000"}'
