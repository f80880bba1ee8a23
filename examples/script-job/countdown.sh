# Counts down from its first argument, a second each; asked to stop, it says so.
trap 'echo "stopped at $left"; exit 143' TERM
for ((left = $1; left > 0; left--)); do
    echo "$left"
    sleep 1 & wait $!
done
echo "lift-off"
