# A node that answers at once, so that bench/traffic measures the balancer and not the application.
global
    # For the tools, which run here as in any container of this image.
    stats socket /run/haproxy/admin.sock mode 600 level admin

defaults
    mode http
    timeout client 65s

frontend application
    bind *:3000
    # A response as long as the application's, with the node's name in the cluster.
    http-request return status 200 content-type application/json lf-string '{"hello":"world!","host":"%H","sessionViews":1,"id":"00000000-0000-0000-0000-000000000000"}'
