# What the container was given and /etc/environment cannot hold.
if [ -r /run/container-environment.sh ]; then
    . /run/container-environment.sh
fi
