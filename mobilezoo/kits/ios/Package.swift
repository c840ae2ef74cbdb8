// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "Classify",
    platforms: [.iOS(.v16), .macOS(.v13)],
    products: [.library(name: "Classify", targets: ["Classify"])],
    targets: [
        .target(name: "Classify", resources: [.copy("Network")]),
        .executableTarget(name: "read-images", dependencies: ["Classify"]),
    ]
)
