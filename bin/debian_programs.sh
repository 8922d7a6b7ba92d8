# shellcheck shell=bash
# Sourced by bin/test, from the repository's root: programs that tests need and pip cannot bring, taken out of Debian's
# packages into .venv. Nothing is installed on the system, nothing is started, and nobody needs to be root.
# Wants .venv, an empty folder $scratch, and what bin/environment.sh defines.

# Downloads packages into the current folder; where the system's own lists of packages are missing or old, by new ones.
apt_download() {
  local ours=(-o "Dir::State=$scratch/apt" -o "Dir::Cache=$scratch/apt")
  apt-get download -qq "$@" && return 0
  mkdir -p "$scratch/apt/lists/partial" "$scratch/apt/archives/partial" &&
    apt-get "${ours[@]}" update -qq && apt-get "${ours[@]}" download -qq "$@"
}

# Downloads packages into the folder $1.
download() {
  mkdir -p "$1" && (cd "$1" && apt_download "${@:2}")
}

# Unpacks every package that lies in the folder $1 into it.
unpack() {
  local package
  for package in "$1"/*.deb; do dpkg-deb -x "$package" "$1" || return 1; done
}

fetch_promtool() {
  local folder=$scratch/promtool
  download "$folder" prometheus &&
    dpkg-deb --fsys-tarfile "$folder"/*.deb | tar -x -C "$folder" ./usr/bin/promtool &&
    mv "$folder/usr/bin/promtool" .venv/bin/promtool
}

# Whether the program $1 is Redis, 7 or newer; Valkey answers to the name redis-server as well.
is_redis_7() {
  [[ $("$1" --version 2>/dev/null) =~ ^Redis\ server\ v=([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -ge 7 ]
}

missing_libraries() { ldd "$1" | awk '/not found/ { print $1 }'; }

# Prints the libraries' packages that the packages in the folder $1 depend on and this system lacks.
missing_library_packages() {
  local package
  for package in "$1"/*.deb; do dpkg-deb -f "$package" Depends; done | tr ',' '\n' | sed -n 's/^ *\(lib[^ :(|]*\).*/\1/p' |
    sort -u | while read -r package; do
      [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
    done
}

# The server with the libraries that this system lacks goes to .venv/lib/redis-server, and a wrapper that finds them to
# .venv/bin. Debian's redis-server is a link into redis-tools.
fetch_redis_server() {
  local folder=$scratch/redis-server home=.venv/lib/redis-server program library packages=()
  download "$folder" redis-server redis-tools && unpack "$folder" && program=$(readlink -e "$folder/usr/bin/redis-server") || return 1
  rm -rf "$home" && mkdir "$home" && cp "$program" "$home/redis-server" || return 1
  if [ -n "$(missing_libraries "$program")" ]; then
    mapfile -t packages < <(missing_library_packages "$folder")
    [ ${#packages[@]} -eq 0 ] ||
      { download "$folder/libraries" "${packages[@]}" && unpack "$folder/libraries"; } || return 1
    for library in $(missing_libraries "$program"); do
      find "$folder/libraries" -name "$library" -exec cp -L {} "$home/" \;
    done
  fi
  cat >.venv/bin/redis-server <<'WRAPPER' && chmod +x .venv/bin/redis-server
#!/bin/sh
# Debian's Redis with the libraries that this system lacks; made by bin/test.
home=${0%/*}/../lib/redis-server
LD_LIBRARY_PATH=$home${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$home/redis-server" "$@"
WRAPPER
  .venv/bin/redis-server --version && is_redis_7 .venv/bin/redis-server
}
